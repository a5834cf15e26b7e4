umask; umask -S
touch f; mkdir d; stat -c '%a %n' f d run.sh lib.sh
umask 077; touch g; stat -c %a g
chmod u+s f; stat -c %a f
ln -s f link; ln f hard; stat -c %h f; readlink link
printf 'echo profile\n' | tee .bashrc .bash_profile .profile >/dev/null
bash -c 'echo not interactive'
bash -lc 'echo login' 
HOME=$PWD sh -c 'echo sh'
