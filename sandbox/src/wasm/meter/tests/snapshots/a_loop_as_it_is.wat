(func (;1;) (type 0) (param i32)
  (local i64)
  global.get 0
  local.set 1
  local.get 1
  i64.const -2
  i64.add
  local.set 1
  loop ;; label = @1
    local.get 1
    i64.const 0
    i64.lt_s
    (@metadata.code.branch_hint "\00")
    if ;; label = @2
      local.get 0
      global.set 1
      local.get 1
      call 2
      local.set 1
      global.get 1
      local.set 0
    end
    local.get 1
    global.set 0
    local.get 1
    i64.const -5
    i64.add
    local.set 1
    local.get 0
    i32.const 1
    i32.sub
    local.tee 0
    br_if 0 (;@1;)
  end
  local.get 1
  global.set 0
)
