print "hello " . <STDIN>;
