{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.sqlite pkgs.bc ]; }
