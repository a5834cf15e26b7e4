exec scala main.jar "$@"
