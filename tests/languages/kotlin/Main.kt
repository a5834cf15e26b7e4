import java.io.File
import java.math.BigInteger
import java.util.concurrent.Callable
import java.util.concurrent.Executors

data class Row(val name: String, val score: Int)

fun main(args: Array<String>) {
    println(args.joinToString(", "))
    val rows = generateSequence(::readLine).map { it.split(" ") }.map { Row(it[0], it[1].toInt()) }.sortedBy { it.name }
        .toList()
    File("out.txt").writeText(rows.joinToString("") { "${it.name} ${it.score}\n" })
    File("out.txt").forEachLine { println(it) }
    val pool = Executors.newFixedThreadPool(2)
    println("sum " + pool.submit(Callable { rows.sumBy { it.score } }).get())
    pool.shutdown()
    println("2^100 = " + BigInteger.valueOf(2).pow(100))
}
