use strict;
use warnings;
use List::Util qw(sum);
use Math::BigInt;
use JSON::PP;

print join(", ", @ARGV), "\n";
my %score = map { split } <STDIN>;
open my $out, ">", "out.txt" or die $!;
print $out "$_ $score{$_}\n" for sort keys %score;
close $out;
open my $in, "<", "out.txt" or die $!;
print while <$in>;
die unless decode_json('{"a": [1]}')->{a}[0] == 1;
print "sum ", sum(values %score), "\n";
print "2^100 = ", Math::BigInt->new(2)->bpow(100), "\n";
