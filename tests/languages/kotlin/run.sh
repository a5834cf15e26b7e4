exec java -jar main.jar "$@"
