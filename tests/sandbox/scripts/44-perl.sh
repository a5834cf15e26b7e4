#!/usr/bin/env perl
use strict; use warnings;
my @lines = <STDIN>;
print "$0 @ARGV ", scalar(@lines), "\n";
print join(",", map { chomp; uc } @lines), "\n";
my $out = `sh -c 'echo from a shell; exit 2'`; print $out, $? >> 8, "\n";
system("nosuchprogram") == -1 and print "cannot: $!\n";
die "the end\n";
