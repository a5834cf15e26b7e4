{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.R pkgs.bc ]; }
