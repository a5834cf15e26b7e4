package main

import (
	"bufio"
	"fmt"
	"math/big"
	"os"
	"sort"
	"strings"
	"sync"
)

type row struct {
	name  string
	score int
}

func main() {
	fmt.Println(strings.Join(os.Args[1:], ", "))
	var rows []row
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r row
		fmt.Sscanf(in.Text(), "%s %d", &r.name, &r.score)
		rows = append(rows, r)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].name < rows[j].name })
	var text strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&text, "%s %d\n", r.name, r.score)
	}
	if err := os.WriteFile("out.txt", []byte(text.String()), 0o644); err != nil {
		panic(err)
	}
	back, _ := os.ReadFile("out.txt")
	fmt.Print(string(back))
	scores := make(chan int)
	var all sync.WaitGroup
	for _, r := range rows {
		all.Add(1)
		go func(score int) { scores <- score; all.Done() }(r.score)
	}
	go func() { all.Wait(); close(scores) }()
	sum := 0
	for score := range scores {
		sum += score
	}
	fmt.Println("sum", sum)
	fmt.Println("2^100 =", new(big.Int).Lsh(big.NewInt(1), 100))
}
