puts "hello " + gets
