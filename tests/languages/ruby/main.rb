require "json"
require "set"
require "bigdecimal"

puts ARGV.join(", ")
rows = STDIN.each_line.map(&:split).sort
File.write("out.txt", rows.map { |row| row.join(" ") + "\n" }.join)
print File.read("out.txt")
sum = Thread.new { rows.sum { |_, score| score.to_i } }.value
raise unless JSON.parse(JSON.generate(rows)) == rows && BigDecimal("0.1") * 3 == BigDecimal("0.3")
puts "sum #{sum}"
puts "2^100 = #{2**100}"
