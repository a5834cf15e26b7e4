g++ -std=c++20 -O2 -Wall -o main main.cpp -lgmpxx -lgmp
