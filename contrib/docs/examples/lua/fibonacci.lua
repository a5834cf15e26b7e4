local a, b = 0, 1
for _ = 1, tonumber(arg[1]) do
    a, b = b, a + b
end
print(string.format("the %sth Fibonacci number is %d", arg[1], a))
