./main
