args <- commandArgs(trailingOnly = TRUE)
cat(paste(args, collapse = ", "), "\n", sep = "")
rows <- read.table(file("stdin"), col.names = c("name", "score"))
rows <- rows[order(rows$name), ]
write.table(rows, "out.txt", quote = FALSE, row.names = FALSE, col.names = FALSE)
writeLines(readLines("out.txt"))
stopifnot(sd(rows$score) == 10, all.equal(unname(coef(lm(c(1, 3, 5) ~ c(0, 1, 2)))), c(1, 2)))
cat("sum ", sum(rows$score), "\n", sep = "")
cat("2^100 = ", system("echo 2^100 | bc", intern = TRUE), "\n", sep = "")
