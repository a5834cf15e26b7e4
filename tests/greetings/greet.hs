main = do { w <- getLine; putStrLn ("hello " ++ w) }
