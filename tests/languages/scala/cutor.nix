{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.scala pkgs.jdk ]; }
