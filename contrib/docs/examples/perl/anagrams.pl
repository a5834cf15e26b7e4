# Which words on standard input are anagrams of each other?
use strict;
use warnings;

my %words;
while (<STDIN>) {
    push @{ $words{ join "", sort split // } }, $_ for split;
}
print join(" ", sort @$_), "\n" for sort { $a->[0] cmp $b->[0] } grep { @$_ > 1 } values %words;
