import std.algorithm, std.array, std.bigint, std.conv, std.file, std.parallelism, std.stdio, std.typecons;

void main(string[] args)
{
    writeln(args[1 .. $].join(", "));
    auto rows = stdin.byLineCopy.map!(line => line.split(" ")).map!(f => tuple(f[0], f[1].to!int)).array.sort.array;
    std.file.write("out.txt", rows.map!(row => text(row[0], " ", row[1], "\n")).join);
    std.stdio.write(readText("out.txt"));
    writeln("sum ", taskPool.reduce!"a + b"(rows.map!(row => row[1]).array));
    writeln("2^100 = ", BigInt(2) ^^ 100);
}
