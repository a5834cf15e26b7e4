cat("hello", readLines(file("stdin"), 1), "\n")
