import java.nio.file.{Files, Paths}
import scala.concurrent.ExecutionContext.Implicits.global
import scala.concurrent.duration.Duration
import scala.concurrent.{Await, Future}
import scala.io.{Source, StdIn}

case class Row(name: String, score: Int)

object Main {
  def main(args: Array[String]): Unit = {
    println(args.mkString(", "))
    val rows = Iterator.continually(StdIn.readLine()).takeWhile(_ != null).map(_.split(" "))
      .map(words => Row(words(0), words(1).toInt)).toList.sortBy(_.name)
    Files.write(Paths.get("out.txt"), rows.map(row => s"${row.name} ${row.score}\n").mkString.getBytes)
    Source.fromFile("out.txt").getLines().foreach(println)
    println("sum " + Await.result(Future(rows.map(_.score).sum), Duration.Inf))
    println("2^100 = " + BigInt(2).pow(100))
  }
}
