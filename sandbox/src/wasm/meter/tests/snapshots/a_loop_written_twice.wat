(func (;1;) (type 0) (param i32)
  (local i64)
  global.get 0
  local.set 1
  local.get 1
  i64.const -2
  i64.add
  local.set 1
  block ;; label = @1
    block ;; label = @2
      block ;; label = @3
        loop ;; label = @4
          loop ;; label = @5
            local.get 1
            i64.const -10
            i64.add
            local.set 1
            block ;; label = @6
              local.get 0
              i32.const 1
              i32.sub
              local.tee 0
              i32.eqz
              (@metadata.code.branch_hint "\00")
              br_if 3 (;@3;)
            end
            block ;; label = @6
              local.get 0
              i32.const 1
              i32.sub
              local.tee 0
              i32.eqz
              (@metadata.code.branch_hint "\00")
              br_if 4 (;@2;)
            end
            local.get 1
            global.set 0
            local.get 1
            i64.const 0
            i64.ge_s
            (@metadata.code.branch_hint "\01")
            br_if 0 (;@5;)
          end
          local.get 0
          global.set 1
          local.get 1
          call 2
          local.set 1
          global.get 1
          local.set 0
          br 0 (;@4;)
        end
        unreachable
      end
      local.get 1
      i64.const 5
      i64.add
      local.set 1
    end
  end
  local.get 1
  global.set 0
)
