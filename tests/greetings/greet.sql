create table t(w);
.import /dev/stdin t
select 'hello ' || w from t;
