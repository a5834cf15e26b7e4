g++ -std=c++20 -O2 -Wall -o primes primes.cpp
