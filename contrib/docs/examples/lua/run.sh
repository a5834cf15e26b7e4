exec lua fibonacci.lua "$1"
