print(table.concat(arg, ", "))
local rows, sum = {}, 0
for line in io.lines() do
    local name, score = line:match("(%S+) (%d+)")
    rows[#rows + 1] = { name = name, score = math.tointeger(score) }
end
table.sort(rows, function(a, b) return a.name < b.name end)
local out = assert(io.open("out.txt", "w"))
for _, row in ipairs(rows) do
    out:write(row.name, " ", row.score, "\n")
    sum = sum + row.score
end
out:close()
io.write(io.open("out.txt"):read("a"))
assert(utf8.len(arg[1]) == 5)
print("sum " .. sum)
print("2^100 = " .. io.popen("echo 2^100 | bc"):read("l"))
