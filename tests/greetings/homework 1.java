package school;

import java.util.Scanner;

public class Greeting {
    public static void main(String[] args) {
        System.out.println("hello " + new Scanner(System.in).next());
    }
}
