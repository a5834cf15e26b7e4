{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = with pkgs; [ gcc gdb valgrind strace bc git curl unzip ]; }
