using System;
using System.IO;
using System.Linq;
using System.Numerics;
using System.Threading.Tasks;

class Program
{
    static void Main(string[] args)
    {
        Console.WriteLine(string.Join(", ", args));
        var rows = Console.In.ReadToEnd().Split(new[] { '\n' }, StringSplitOptions.RemoveEmptyEntries)
            .Select(line => line.Split(' ')).Select(f => new { Name = f[0], Score = int.Parse(f[1]) })
            .OrderBy(row => row.Name, StringComparer.Ordinal).ToList();
        File.WriteAllLines("out.txt", rows.Select(row => $"{row.Name} {row.Score}"));
        Console.Write(File.ReadAllText("out.txt"));
        Console.WriteLine("sum {0}", Task.Run(() => rows.Sum(row => row.Score)).Result);
        Console.WriteLine("2^100 = {0}", BigInteger.Pow(2, 100));
    }
}
