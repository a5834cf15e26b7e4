{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.kotlin pkgs.jdk ]; }
