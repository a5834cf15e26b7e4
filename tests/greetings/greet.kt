fun main() = println("hello ${readLine()}")
