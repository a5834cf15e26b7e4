exec ./main
