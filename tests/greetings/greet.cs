class Greeting {
    static void Main() {
        System.Console.WriteLine("hello " + System.Console.ReadLine());
    }
}
