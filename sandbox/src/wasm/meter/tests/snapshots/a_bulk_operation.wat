(func (;1;) (type 0) (param i32)
  (local i64 i32)
  global.get 0
  local.set 1
  local.get 1
  i64.const -69
  i64.add
  local.set 1
  local.get 1
  i64.const 0
  i64.lt_s
  (@metadata.code.branch_hint "\00")
  if ;; label = @1
    local.get 1
    call 2
    local.set 1
  end
  i32.const 0
  i32.const 0
  local.get 0
  local.tee 2
  local.get 1
  local.get 2
  i64.extend_i32_u
  i64.const 3
  i64.shr_u
  i64.sub
  local.set 1
  local.get 1
  i64.const 0
  i64.lt_s
  (@metadata.code.branch_hint "\00")
  if ;; label = @1
    local.get 1
    call 2
    local.set 1
  end
  local.get 1
  global.set 0
  memory.fill
  global.get 0
  local.set 1
)
