exec ./primes "$1"
