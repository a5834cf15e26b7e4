exec lua main.lua "$@"
