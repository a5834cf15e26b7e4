{ print "hello " $0 }
