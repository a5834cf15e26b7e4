scalac -d main.jar Main.scala
