go build -o roll .
