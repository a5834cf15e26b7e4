{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.nasm pkgs.bc ]; }
