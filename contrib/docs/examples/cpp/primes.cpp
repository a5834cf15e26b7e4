// How many primes are there below a limit? Two threads count, each in one half.

#include <algorithm>
#include <future>
#include <iostream>
#include <string>
#include <vector>

int main(int, char **argv)
{
    std::vector<char> prime(std::stoul(argv[1]), true);
    prime[0] = prime[1] = false;
    for (std::size_t i = 2; i * i < prime.size(); i++)
        if (prime[i])
            for (std::size_t multiple = i * i; multiple < prime.size(); multiple += i)
                prime[multiple] = false;

    auto middle = prime.begin() + prime.size() / 2;
    auto first = std::async(std::launch::async, [&] { return std::count(prime.begin(), middle, true); });
    std::cout << first.get() + std::count(middle, prime.end(), true) << " primes below " << prime.size() << std::endl;
}
