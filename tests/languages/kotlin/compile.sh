kotlinc -nowarn -include-runtime -d main.jar Main.kt
