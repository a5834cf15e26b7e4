print("hello " .. io.read())
