(require :sb-posix)
(defun row (line)
  (let ((space (position #\Space line)))
    (list (subseq line 0 space) (parse-integer line :start space))))
(defparameter *rows*
  (sort (loop for line = (read-line *standard-input* nil) while line collect (row line)) #'string< :key #'first))
(format t "~{~a~^, ~}~%" (rest sb-ext:*posix-argv*))
(with-open-file (out "out.txt" :direction :output :if-exists :supersede)
  (format out "~:{~a ~d~%~}" *rows*))
(with-open-file (in "out.txt")
  (loop for line = (read-line in nil) while line do (write-line line)))
(format t "sum ~d~%2^100 = ~d~%"
        (sb-thread:join-thread (sb-thread:make-thread (lambda () (reduce #'+ *rows* :key #'second))))
        (expt 2 100))
