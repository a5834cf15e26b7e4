object Greeting {
  def main(arguments: Array[String]): Unit = println("hello " + scala.io.StdIn.readLine())
}
