"hello", .
