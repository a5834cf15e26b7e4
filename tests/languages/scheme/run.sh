exec guile --no-auto-compile main.scm "$@"
