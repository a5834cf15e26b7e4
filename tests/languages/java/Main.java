import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Scanner;
import java.util.TreeMap;
import java.util.concurrent.Executors;

public class Main {
    record Row(String name, int score) {}

    public static void main(String[] args) throws Exception {
        System.out.println(String.join(", ", args));
        var rows = new TreeMap<String, Row>();
        var in = new Scanner(System.in);
        while (in.hasNext()) {
            var row = new Row(in.next(), in.nextInt());
            rows.put(row.name(), row);
        }
        var lines = rows.values().stream().map(row -> String.format("%s %d", row.name(), row.score())).toList();
        Files.write(Path.of("out.txt"), lines);
        for (String line : Files.readAllLines(Path.of("out.txt")))
            System.out.println(line);
        var pool = Executors.newFixedThreadPool(2);
        var sum = pool.submit(() -> rows.values().stream().mapToInt(Row::score).sum());
        System.out.println("sum " + sum.get());
        pool.shutdown();
        System.out.println("2^100 = " + BigInteger.TWO.pow(100));
    }
}
