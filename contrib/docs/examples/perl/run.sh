exec perl anagrams.pl
