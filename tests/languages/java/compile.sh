javac -encoding UTF-8 Main.java
