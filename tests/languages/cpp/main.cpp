#include <fstream>
#include <future>
#include <gmpxx.h>
#include <iostream>
#include <map>
#include <numeric>
#include <string>

int main(int argc, char **argv)
{
    std::map<std::string, int> rows;
    std::string name;
    int score;

    std::cout << argv[1] << ", " << argv[argc - 1] << '\n';
    while (std::cin >> name >> score)
        rows[name] = score;
    auto total = std::async(std::launch::async, [&] {
        return std::accumulate(rows.begin(), rows.end(), 0, [](int sum, auto &row) { return sum + row.second; });
    });
    std::ofstream out("out.txt");
    for (auto &[key, value] : rows)
        out << key << ' ' << value << '\n';
    out.close();
    std::cout << std::ifstream("out.txt").rdbuf() << "sum " << total.get() << '\n';
    mpz_class big;
    mpz_ui_pow_ui(big.get_mpz_t(), 2, 100);
    std::cout << "2^100 = " << big << std::endl;
}
